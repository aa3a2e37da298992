"""The HTTP API: commands in, reports out. It holds no state of its own.

| file | holds |
|---|---|
| `app.py`, `app_settings.py`, `parts.py` | reads the settings, builds everything, and hands it to the routes |
| `routes/` | the endpoints |
| `door.py`, `connections.py`, `descriptors.py`, `request_head.py` | connections, and requests that are not valid HTTP |
| `access.py`, `auth.py`, `body_limit.py`, `head_as_get.py`, `headers.py` | what every request passes |
| `keys.py`, `refused_keys.py` | the keys, in memory, and a count of those that were refused |
| `json_route.py`, `kill_body.py`, `requests.py` | reads bodies and queries |
| `commands.py`, `command_answers.py` | sends a command, waits for its outcome, and words the answer |
| `coordinator.py`, `desk_database.py` | reads the coordinator, and knows which database is its desk's |
| `reporting.py`, `rows.py`, `account.py` | reads the database for reports |
| `feed.py`, `streams.py` | the stream of events for the console |
| `health.py`, `redis_probe.py`, `metrics.py` | health and metrics |
| `errors.py`, `models.py` | the errors, and the models of all answers |
| `openapi.py`, `guide.py`, `reference.py`, `docs.py`, `manual.py` | the OpenAPI document, the pages made of it, and the manual |

A kill passes `door.py`, `access.py`, `auth.py`, `body_limit.py`, `routes/control.py`, `kill_body.py`, `commands.py`,
`coordinator.py`, and then `workflows/gateway.py`.
"""
