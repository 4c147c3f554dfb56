"""A circuit, on a clock of the test's own."""

from domain.circuit import Circuit, Thresholds

TERMS = Thresholds(failures=3, share=0.5, least=10, window=10.0, pause=1.0, longest_pause=4.0, warm_up=10.0)


def opened(at: float = 0.0) -> Circuit:
    circuit = Circuit(TERMS)
    circuit.open(at)
    return circuit


def probe(circuit: Circuit, now: float, *, good: bool) -> None:
    assert circuit.state(now) == "half_open"
    circuit.began(now)
    if good:
        circuit.served(now)
    else:
        circuit.failed(now)


def test_failures_in_a_row_open_it() -> None:
    """Not one less, and not with a success between them."""
    circuit = Circuit(TERMS)
    for _ in range(2):
        circuit.failed(0.0)
        circuit.failed(0.0)
        assert circuit.closed
        circuit.served(0.0)
    for _ in range(3):
        assert circuit.allows(0.0)
        circuit.failed(0.0)
    assert (circuit.state(0.5), circuit.allows(0.5), circuit.retry_in(0.25)) == ("open", False, 0.75)


def test_a_share_of_many_opens_it() -> None:
    """Half of at least ten within the window; older ones do not count."""
    circuit = Circuit(TERMS)
    for now in (0.0, 10.5):
        for _ in range(4):
            circuit.failed(now)
            circuit.served(now)
    assert circuit.closed
    circuit.failed(10.6)
    assert circuit.closed
    circuit.served(10.6)
    circuit.failed(10.7)
    assert circuit.state(10.7) == "open"


def test_fewer_failures_than_the_share_leave_it_closed() -> None:
    """A backend that fails now and then goes on."""
    circuit = Circuit(TERMS)
    for _ in range(100):
        circuit.failed(1.0)
        circuit.served(1.0)
        circuit.served(1.0)
    assert circuit.closed


def test_after_its_pause_one_request_at_a_time_probes() -> None:
    """The others go elsewhere until it ended, also where its end says nothing."""
    circuit = opened()
    assert not circuit.allows(0.99)
    assert circuit.allows(1.0)
    circuit.began(1.0)
    assert not circuit.allows(1.1)
    circuit.neither()
    assert circuit.allows(1.2)


def test_a_probe_that_fails_doubles_the_pause_up_to_the_longest() -> None:
    """1, 2, 4, 4 seconds."""
    circuit, now = opened(), 0.0
    for pause in (1.0, 2.0, 4.0, 4.0):
        assert circuit.retry_in(now) == pause
        now += pause
        probe(circuit, now, good=False)


def test_a_probe_whose_answer_has_begun_keeps_nobody_out() -> None:
    """An answer may take minutes: it warms up meanwhile. If it breaks after all, nothing was served, and the pause is longer."""
    circuit = opened()
    circuit.began(1.0)
    circuit.answers(1.5)
    assert (circuit.state(1.5), circuit.share(1.5), circuit.allows(1.5)) == ("warming", 0.1, True)
    circuit.failed(3.0)
    assert (circuit.state(3.0), circuit.retry_in(3.0)) == ("open", 2.0)


def test_an_answer_that_came_to_its_end_is_what_counts_while_it_warms_up() -> None:
    """After that a failure is one of as many as it takes otherwise; an answer that began before changes nothing."""
    circuit = opened()
    circuit.began(1.0)
    circuit.answers(1.5)
    circuit.served(2.0)
    circuit.failed(3.0)
    assert circuit.state(3.0) == "warming"
    circuit.answers(11.0)
    assert circuit.state(11.5) == "closed"


def test_a_probe_that_is_served_warms_it_up_to_its_full_share() -> None:
    """A tenth at first, then more from second to second; a pause is short again once it is closed."""
    circuit = opened()
    probe(circuit, 1.0, good=True)
    assert [circuit.state(now) for now in (1.0, 10.9, 11.0)] == ["warming", "warming", "closed"]
    assert [circuit.share(now) for now in (1.0, 6.0, 11.0)] == [0.1, 0.5, 1.0]
    circuit.began(11.0)
    assert circuit.closed
    circuit.open(20.0)
    assert circuit.retry_in(20.0) == 1.0


def test_a_circuit_that_opens_while_it_warms_up_pauses_longer() -> None:
    """It was not well yet."""
    circuit = opened()
    probe(circuit, 1.0, good=True)
    for _ in range(3):
        circuit.failed(2.0)
    assert circuit.retry_in(2.0) == 2.0


def test_what_ends_after_it_opened_was_sent_before_and_changes_nothing() -> None:
    """Neither a success nor a failure."""
    circuit = opened()
    circuit.served(0.1)
    circuit.failed(0.9)
    assert (circuit.state(0.9), circuit.allows(1.0)) == ("open", True)


def test_what_opened_it_is_remembered_as_fast_or_slow() -> None:
    """Whoever goes there all the same wants to know whether it will wait."""
    circuit = Circuit(TERMS)
    for slow in (True, True, False):
        circuit.failed(0.0, slow=slow)
    assert not circuit.slow
    probe(circuit, 1.0, good=True)
    for slow in (False, False, True):
        circuit.failed(2.0, slow=slow)
    assert circuit.slow


def test_an_answer_to_somebody_beside_all_requests_ends_the_pause() -> None:
    """It warms up at once."""
    circuit = opened()
    circuit.probed(0.2)
    assert circuit.state(0.2) == "warming"
