"""Groups of several processes still talk where they share a device."""

import os
import sys
from pathlib import Path

import pytest

from tests import warm
from tests.conftest import free_port

_RANK = """
import sys
from pathlib import Path

import torch
from torch import distributed

from stepback_server.engine.gloo import share_gloo_device

share_gloo_device()
rank = int(sys.argv[1])
distributed.init_process_group("gloo", rank=rank, world_size=2)
groups = [distributed.new_group([0, 1], backend="gloo") for _ in range(5)]
alone = [distributed.new_group([each], backend="gloo") for each in (0, 1)]
total = torch.tensor([rank + 1])
for group in (*groups, alone[rank]):
    distributed.all_reduce(total, group=group)
threads = [each.read_text().strip() for each in Path("/proc/self/task").glob("*/comm")]
print(total.item(), threads.count("gloo_tcp_loop"))
distributed.destroy_process_group()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize(("interfaces", "devices"), [("", 1), ("lo", 1), ("lo,lo", 2)])
def test_two_processes_sum_over_every_group_with_one_device_for_each_interface(
    tmp_path: Path, interfaces: str, devices: int
) -> None:
    (tmp_path / "a_rank.py").write_text(_RANK)
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": interfaces,
    }
    logs = [tmp_path / f"{rank}.txt" for rank in (0, 1)]
    running = list[warm.Running]()
    try:
        for rank, log in enumerate(logs):
            with log.open("w") as output:
                words = ("a_rank", str(rank))
                running.append(warm.start(*words, env=environment, stdout=output, stderr=output))
        statuses = [each.wait(300) for each in running]
    finally:
        for each in running:
            each.kill()
            each.wait()
    written = [log.read_text() for log in logs]
    assert statuses == [0, 0], written
    # 1 + 2, and that doubled by each further group of two.
    assert [text.split() for text in written] == [[str(3 * 2**4), str(devices)]] * 2
