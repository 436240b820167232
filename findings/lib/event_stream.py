"""A service on 127.0.0.1 that answers each POST with server-sent events; for the scripts beside this folder."""

import http.server
import json
import threading


def serve(events_for):
    """Answer with the bytes that `events_for` gives for the request's "model". Returns the service's address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(events_for(asked["model"]))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"
