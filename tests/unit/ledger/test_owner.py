import os
import socket
from types import SimpleNamespace

from lightning_al.ledger import owner


def test_on_windows_no_signal_is_sent(monkeypatch):
    """Where signal 0 is Ctrl+C, the process asked about would end."""

    def refuse(*_):
        raise AssertionError("sent a signal")

    shim = SimpleNamespace(name="nt", kill=refuse, getpid=os.getpid, environ=os.environ)
    monkeypatch.setattr(owner, "os", shim)
    assert owner.may_live(socket.gethostname(), os.getpid() + 1, None, None)
