"""Notifications: tells people what happens to a desk, wherever they are.

| file | holds |
|---|---|
| `channels.py` | who is notified, and of what |
| `delivery.py` | one message to one channel, in a process of its own |
| `sender.py` | what that process runs |
| `notifier.py` | notes what happens and sends it, as long as a worker or an API runs |

`domain/notices.py` decides what people are told, and words it; `storage/notices.py` keeps the
events, `storage/notice_queue.py` hands them out to be sent.
"""
