"""What schedulers' APIs answer to a deployment that only compiles: nothing of this name is deployed yet."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["scheduler_api"]

_QUEUE = {
    "jobQueueName": "queue",
    "jobQueueArn": "arn:queue",
    "state": "ENABLED",
    "status": "VALID",
    "priority": 1,
    "computeEnvironmentOrder": [{"order": 1, "computeEnvironment": "machines"}],
}
_MACHINES = {
    "computeEnvironmentName": "machines",
    "computeEnvironmentArn": "arn:machines",
    "ecsClusterArn": "arn:cluster",
    "computeResources": {"type": "EC2", "maxvCpus": 1, "subnets": []},
}
_POSTED: dict[str, Any] = {
    "/": {"stateMachines": []},
    "/v1/describejobqueues": {"jobQueues": [_QUEUE]},
    "/v1/describecomputeenvironments": {"computeEnvironments": [_MACHINES]},
    "/v1/describejobdefinitions": {"jobDefinitions": []},
    "/v1/registerjobdefinition": {
        "jobDefinitionName": "job",
        "jobDefinitionArn": "arn:job:1",
        "revision": 1,
    },
}


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(404, {"message": "not found"})

    def do_POST(self) -> None:
        self._answer(200 if self.path in _POSTED else 404, _POSTED.get(self.path, {}))

    do_PUT = do_GET

    def log_message(self, *args: Any) -> None:
        """Nothing on the test's output."""

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def scheduler_api(folder: Path) -> Iterator[dict[str, str]]:
    """Serve the answers, and return the environment in which Metaflow asks for them."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        config = folder / "kubeconfig"
        config.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "here", "cluster": {"server": url}}],
                    "users": [{"name": "ada", "user": {}}],
                    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "ada"}}],
                    "current-context": "here",
                }
            )
        )
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield {
                "KUBECONFIG": str(config),
                "AWS_ENDPOINT_URL_SFN": url,
                "AWS_ENDPOINT_URL_BATCH": url,
                # A task on a machine of theirs asks that for its kind, at an address that is nowhere here.
                "http_proxy": url,
                "no_proxy": "127.0.0.1",
                "METAFLOW_SFN_IAM_ROLE": "arn:aws:iam::1:role/sfn",
                "METAFLOW_BATCH_JOB_QUEUE": "queue",
                "METAFLOW_ECS_S3_ACCESS_IAM_ROLE": "arn:aws:iam::1:role/s3",
            }
        finally:
            server.shutdown()
            thread.join()
