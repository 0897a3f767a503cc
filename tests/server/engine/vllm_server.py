"""vLLM's server as a test starts it: its core is forked, and so begins in half the time.

python -m tests.server.engine.vllm_server FLAGS
"""

import sys

from stepback_server.engine.fork_server import start_fork_server
from stepback_server.engine.vllm_process import SERVER, serve_vllm

if __name__ == "__main__":
    start_fork_server(SERVER)
    serve_vllm(sys.argv[1:])
