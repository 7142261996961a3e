"""A TCP proxy on loopback that cuts connections in the middle of an answer and now and then answers 503."""

from __future__ import annotations

import contextlib
import socket
import threading

SLOW_DOWN = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class FaultProxy:
    """Passes connections on to `port`; of each ten, one is cut after some bytes and one gets a 503."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.cuts = self.refusals = self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Accept no more connections."""
        self.listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(client, self.connections % 10), daemon=True).start()

    def _serve(self, client: socket.socket, number: int) -> None:
        with client, contextlib.suppress(OSError):
            if number == 3:
                self.refusals += 1
                client.recv(1 << 16)
                client.sendall(SLOW_DOWN)
                return
            with socket.create_connection(self.target) as server:
                threading.Thread(target=self._pass, args=(client, server, None), daemon=True).start()
                self._pass(server, client, 400 if number == 7 else None)

    def _pass(self, source: socket.socket, target: socket.socket, limit: int | None) -> None:
        """Copy bytes until the source ends, or cut after `limit` of them."""
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if limit is not None and len(data) >= limit:
                    self.cuts += 1
                    target.sendall(data[: limit // 2])
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
