"""Notifications: what happens to a desk is told to people, wherever they are.

| file | holds |
|---|---|
| `channels.py` | who is told, and of what |
| `delivery.py` | one message to one channel, in a process of its own |
| `sender.py` | what that process runs |
| `notifier.py` | notes what happens and sends it, as long as a worker or an API runs |

What is told, and in which words, is in `domain/notices.py`; what waits is in `storage/notices.py`.
"""
