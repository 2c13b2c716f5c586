"""The clients of the benchmark, against a server whose answers are known."""

from tests.serving.server import running, wav
from tools.benchmark_server import ask, ask_at_once, percentile


def test_every_client_gets_the_text_of_its_own_recording():
    texts = ["abc", "def gh"]
    with running() as server:
        answers = ask_at_once(server.url, [wav(text) for text in texts], clients=3, requests=2)
        assert ask(server.url, b"no audio")[1] is None
    assert sorted(index for _, _, index in answers) == [0, 0, 0, 1, 1, 1]
    assert all(text == texts[index] for _, text, index in answers)
    assert ask(server.url, wav("abc"))[1] is None, "it is gone"


def test_percentiles_are_numbers_that_were_measured():
    numbers = [float(number) for number in range(1, 101)]
    assert (percentile(numbers, 50), percentile(numbers, 95)) == (50.0, 95.0)
    assert percentile([1.0, 2.0, 3.0], 95) == 3.0
    assert percentile([7.0], 95) == 7.0
