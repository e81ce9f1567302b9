"""Pairs of processes that end at once after an exchange, with threads that work only when nobody else does.

They are forks of this one: one of the warm server ends without its interpreter's exit, which is tried here.
"""

import os
import sys

import torch
import torch._dynamo  # else each of them imports it
import torch.distributed as dist
from ports import free_port
from torch.nn.parallel import DistributedDataParallel

from lightning_al.together import close_at_exit


def exchange(rank, port):
    """Leaves a wrapped module behind in a cycle, as Lightning does."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for thread in map(int, os.listdir("/proc/self/task")):
        os.sched_setaffinity(thread, sorted(os.sched_getaffinity(0))[:1])
        if thread != os.getpid():
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    wrapped = DistributedDataParallel(torch.nn.Linear(10, 10))
    wrapped.cycle = [wrapped]
    wrapped(torch.ones(2, 10)).sum().backward()
    dist.all_gather_object([None, None], {"rank": rank})


if __name__ == "__main__":
    count, failed = int(sys.argv[1]), 0
    for _ in range(count):
        port, started = free_port(), []
        for rank in range(2):
            if not (pid := os.fork()):
                close_at_exit()
                exchange(rank, port)
                sys.exit(0)
            started.append(pid)
        failed += sum(os.waitpid(pid, 0)[1] != 0 for pid in started)
    print(f"{failed} of {2 * count} failed")
