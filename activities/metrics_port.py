"""Serves the worker's metrics, to a few clients at a time, each for a limited time.

prometheus_client's own server gives each connection a thread and a descriptor for as long as the client likes. Measured: 600
connections that asked nothing took 330 of both within seconds. A worker without descriptors can neither reconnect to the venue
nor to the database, and the cancels of a kill need both.
"""

import socket
import threading
from socketserver import TCPServer, ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

MOST_CLIENTS = 16
# For the request and for the answer of one client, between any two bytes.
CLIENT_SECONDS = 5.0


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_SECONDS

    def log_message(self, format: str, *args: object) -> None:
        """A scrape every few seconds is no news."""


class MetricsServer(ThreadingMixIn, WSGIServer):
    """A thread for each client, and no more than MOST_CLIENTS: others are closed at once."""

    daemon_threads = True
    request_queue_size = MOST_CLIENTS

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._free = threading.BoundedSemaphore(MOST_CLIENTS)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Without the name of this machine, which the base class looks up: a name server may not answer."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def verify_request(self, request: object, client_address: object) -> bool:
        """Whether there is room for one more."""
        return self._free.acquire(blocking=False)

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        """Starts its thread."""
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        """The whole life of one connection."""
        # Bytes one by one would prolong the time of each reading for ever.
        end = threading.Timer(2 * CLIENT_SECONDS, _shut, (request,))
        end.daemon = True
        try:
            end.start()
            super().process_request_thread(request, client_address)
        except RuntimeError:
            # No more threads can be started.
            self.shutdown_request(request)
        finally:
            end.cancel()
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left or ran out of time is no fault of ours."""


def _shut(request: socket.socket) -> None:
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def serve_metrics(host: str, port: int, registry: CollectorRegistry) -> MetricsServer:
    """Serves them in the background. Raises OSError if the port is taken."""
    server = make_server(host, port, make_wsgi_app(registry), MetricsServer, _Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
