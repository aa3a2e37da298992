"""The commands of `ais` as a person types them: options, help, and the checks that need no store.

| file | commands |
|---|---|
| `processes.py` | dev, api, migrate, notify |
| `auditing.py` | audit totals, verify, key, checkpoint, export |
| `lifecycle.py` | start, restart, release |
| `views.py` | status, watch, doctor, desks, log |
| `operating.py` | kill, pause, resume, cancel-all, deleverage, limits |
| `replaying.py` | replay |
| `keys.py` | keys create, keys list, keys revoke, keys rotate |

Their work is in the modules beside this package, imported where it begins: `ais --help` must not wait for it.
"""
