import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechjepa.audio.windows import WindowConfig, plan_windows, stream_windows
from speechjepa.errors import ConfigError

HOP = 4


def configs():
    return st.integers(1, 12).flatmap(
        lambda window: st.integers(0, window // 2).map(
            lambda overlap: WindowConfig(
                window_samples=window * HOP, overlap_samples=overlap * HOP, hop=HOP
            )
        )
    )


def blocks_of(waveform, sizes):
    position = 0
    for size in sizes:
        yield waveform[position : position + size]
        position += size
    yield waveform[position:]


@settings(max_examples=300, deadline=None)
@given(configs(), st.integers(0, 300))
def test_kept_frames_tile_the_recording(config, num_samples):
    windows = plan_windows(num_samples, config)
    frames = []
    for window in windows:
        own = range(window.start // HOP, window.start // HOP + -(-window.num_samples // HOP))
        kept = own[window.frame_slice]
        assert kept.start == window.first_frame
        assert window.end_frame is None or kept.stop == window.end_frame
        frames += kept
    assert frames == list(range(-(-num_samples // HOP)))


@settings(max_examples=300, deadline=None)
@given(configs(), st.integers(1, 300))
def test_inner_frames_keep_at_least_half_of_the_overlap_as_context(config, num_samples):
    windows = plan_windows(num_samples, config)
    half = config.overlap_samples // HOP // 2
    for before, after in zip(windows, windows[1:], strict=False):
        assert before.end // HOP - before.end_frame >= half
        assert after.first_frame - after.start // HOP >= half


@settings(max_examples=300, deadline=None)
@given(configs(), st.integers(0, 300), st.lists(st.integers(0, 90), max_size=8))
def test_a_stream_gives_the_planned_windows_however_it_is_cut(config, num_samples, sizes):
    waveform = np.arange(num_samples, dtype=np.float32)
    streamed = list(stream_windows(blocks_of(waveform, sizes), config))
    assert [window for window, _ in streamed] == plan_windows(num_samples, config)
    for window, samples in streamed:
        np.testing.assert_array_equal(samples, waveform[window.start : window.end])


def test_what_fits_in_one_window_is_one_window():
    config = WindowConfig(window_samples=10 * HOP, overlap_samples=2 * HOP, hop=HOP)
    assert len(plan_windows(10 * HOP, config)) == 1
    assert len(plan_windows(10 * HOP + 1, config)) == 2


def test_the_last_window_is_moved_back_to_keep_its_context():
    config = WindowConfig(window_samples=100 * HOP, overlap_samples=10 * HOP, hop=HOP)
    last = plan_windows(191 * HOP, config)[-1]
    assert last.num_samples == 100 * HOP


def test_a_long_stream_is_never_held_whole():
    config = WindowConfig(window_samples=100, overlap_samples=20, hop=4)
    blocks_ahead = []
    num_given = 0

    def blocks():
        nonlocal num_given
        for _ in range(1000):
            num_given += 10
            yield np.zeros(10, dtype=np.float32)

    for window, samples in stream_windows(blocks(), config):
        blocks_ahead.append(num_given - window.start)
        assert samples.base is None or samples.base.size <= 220
    assert max(blocks_ahead) <= 2 * 100 + 10


@pytest.mark.parametrize(
    "settings",
    [(30.0, 16.0), (0.0, 0.0), (1.0, -1.0), (float("nan"), 0.0)],
)
def test_windows_that_cannot_be_laid_are_refused(settings):
    with pytest.raises(ConfigError):
        WindowConfig.from_seconds(*settings, hop=320, sample_rate=16000)


def test_seconds_become_whole_hops():
    config = WindowConfig.from_seconds(1.01, 0.111, hop=320, sample_rate=16000)
    assert (config.window_samples, config.overlap_samples) == (16000, 1920)
