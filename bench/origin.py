"""A web server of our own that sends so many bytes a second in all, however many ask: for tools/bench."""
import http.server
import threading
import time

PIECE = 16384


class Origin:
    """data at /pkgs/NAME; `sent` counts the bytes of bodies."""

    def __init__(self, data, bytes_per_s):
        self.data, self.rate, self.sent = data, bytes_per_s, 0
        self.lock, self.free_at = threading.Lock(), 0.0
        origin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(origin.data)))
                self.end_headers()
                for at in range(0, len(origin.data), PIECE):
                    piece = origin.data[at:at + PIECE]
                    origin.wait(len(piece))
                    self.wfile.write(piece)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.request_queue_size = 64
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait(self, n):
        """Until the line is free for them: the line is one, and nobody's turn is longer than a piece."""
        with self.lock:
            now = time.monotonic()
            begin = max(now, self.free_at)
            self.free_at = begin + n / self.rate
            self.sent += n
            until = self.free_at
        time.sleep(max(0.0, until - now))

    def stop(self):
        self.server.shutdown()
