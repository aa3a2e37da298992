"""The commands of `ais` as a person types them: options, help, and the checks that need no store.

| file | commands |
|---|---|
| `processes.py` | dev, api, migrate, notify |
| `auditing.py` | audit totals, verify, export, rebuild, key, checkpoint, accept |
| `lifecycle.py` | start, restart, release |
| `views.py` | status, watch, doctor, desks, log |
| `operating.py` | kill, pause, resume, cancel-all, deleverage, limits, symbols add |
| `replaying.py` | replay |
| `keys.py` | keys create, keys list, keys revoke, keys rotate |

The modules beside this package do the work. They are imported only when it begins: `ais --help` must not wait for them.
"""
