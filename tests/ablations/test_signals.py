"""The first signal asks, the second ends."""

import os
import signal

import pytest

from ablations.signals import on_signals


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_asks_and_the_second_ends(number, status, capfd):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended, on_signals("stopping") as request:
        assert not request()
        os.kill(os.getpid(), number)
        assert request()
        assert request.status == status
        assert capfd.readouterr().err == "stopping\n"
        os.kill(os.getpid(), number)
    assert ended.value.code == status
    assert signal.getsignal(number) is before


def test_a_request_without_a_signal_is_no_status():
    with on_signals() as request:
        request.make()
        assert request()
        os.kill(os.getpid(), signal.SIGTERM)  # the first signal: it ends nothing
    assert request.status == 143


def test_the_status_is_of_the_first_signal(capfd):
    with pytest.raises(SystemExit) as ended, on_signals() as request:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert (request.status, ended.value.code) == (130, 143)
    assert capfd.readouterr().err == ""
