"""A camera in another process, over dv-processing's network transport: real processes, real sockets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from camera_keys import make_authority, write_keys
from ports import free_port
from toy_recordings import write_recording

from client.cameras.serve import main
from client.cameras.source import CameraSource, Portion, find_again, open_source
from mcoe_model.errors import CameraMissing, DataMissing, ExitCode

PATIENCE_S = 180.0


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def serve(processes: list[subprocess.Popen[str]], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "client.cameras.serve", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    processes.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == '{"is": "ready"}\n'
    return process


def connecting() -> list[int]:
    """The processes of this one that make connections over TLS."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [int(child) for child in children if b"cameras.secured" in Path(f"/proc/{child}/cmdline").read_bytes()]


def watched(camera: CameraSource, frames: int) -> list[Portion]:
    """What comes until that many frames have, or the camera is lost and read empty."""
    portions: list[Portion] = []
    until = time.monotonic() + PATIENCE_S
    while sum(len(portion.frames) for portion in portions) < frames:
        assert time.monotonic() < until
        running = camera.running()
        if (portion := camera.read()) is not None:
            portions.append(portion)
        elif not running:
            break
        else:
            time.sleep(0.005)
    return portions


def test_the_simulated_eye_is_seen_from_another_process(processes: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    """Recorded, lost when its process is killed, and found again when it is back."""
    folder = tmp_path / "camera"
    served = serve(processes, "simulated:3", "--dir", str(folder))
    assert folder.stat().st_mode & 0o777 == 0o700
    camera = open_source(f"network:{folder}")
    assert (camera.info.model, camera.info.serial) == ("simulated", "SIM00003")
    assert camera.info.streams == {"events", "frames", "imu"}
    portions = watched(camera, 10)
    events = np.concatenate([portion.events.numpy() for portion in portions if portion.events is not None])
    assert len(events) > 100 and (np.diff(events["timestamp"]) >= 0).all()
    assert any(portion.imu is not None for portion in portions)
    assert sum(portion.refused for portion in portions) == 0
    assert camera.running() and not camera.ended

    served.kill()
    watched(camera, 10**6)
    assert not camera.running() and camera.read() is None and not camera.ended
    assert find_again(f"network:{folder}", camera.info) is None

    serve(processes, "simulated:3", "--dir", str(folder))  # the killed one's sockets are in the way, and are taken
    found = find_again(f"network:{folder}", camera.info)
    assert found is not None and found.info == camera.info
    assert watched(found, 1)


def test_another_camera_at_the_same_place_is_not_taken_for_the_one_that_was_lost(
    processes: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    serve(processes, "simulated:1", "--dir", str(tmp_path))
    lost = open_source("simulated:2").info
    assert find_again(f"network:{tmp_path}", lost) is None


def test_a_served_recording_arrives_whole_over_tcp(processes: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    events = write_recording(tmp_path / "a.aedat4", seconds=8)
    port = free_port(4)
    serve(processes, f"recording:{tmp_path / 'a.aedat4'}", "--port", str(port))
    camera = open_source(f"network:127.0.0.1:{port}")
    assert camera.info.streams == {"events", "frames", "imu", "triggers"}
    portions = watched(camera, 10**6)
    seen = np.concatenate([portion.events.numpy() for portion in portions if portion.events is not None])
    # Served from the start, and joined within the first seconds: then every event.
    assert len(seen) > len(events) // 2 and np.array_equal(seen, events[-len(seen) :])
    assert processes[0].wait(PATIENCE_S) == 0


def test_a_reader_who_is_held_up_misses_nothing(processes: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    events = write_recording(tmp_path / "a.aedat4", seconds=6)
    port = free_port(4)
    serve(processes, f"recording:{tmp_path / 'a.aedat4'}", "--port", str(port))
    camera = open_source(f"network:127.0.0.1:{port}")
    watched(camera, 1)
    time.sleep(1.5)  # as long as a machine without memory to spare may keep a process from running
    portions = watched(camera, 10**6)
    seen = np.concatenate([portion.events.numpy() for portion in portions if portion.events is not None])
    assert len(seen) > len(events) // 2 and np.array_equal(seen, events[-len(seen) :])


def test_a_served_camera_ends_when_it_is_told_to(processes: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    """Taking down dv-processing's writer after a reader has left would wait for ever."""
    served = serve(processes, "simulated", "--dir", str(tmp_path))
    camera = open_source(f"network:{tmp_path}")
    watched(camera, 2)
    camera.close()
    time.sleep(0.5)
    served.send_signal(signal.SIGTERM)
    assert served.wait(PATIENCE_S) == 0
    assert list(tmp_path.iterdir()) == []


def test_no_camera_is_said_so(tmp_path: Path) -> None:
    for where in (str(tmp_path), str(tmp_path / "missing"), f"127.0.0.1:{free_port(4)}"):
        with pytest.raises(CameraMissing, match="no camera serves events or frames"):
            open_source(f"network:{where}")


def test_a_camera_without_frames_is_refused(processes: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    serve(processes, "simulated", "--dir", str(tmp_path))
    for stream in ("frames", "imu"):
        (tmp_path / stream).unlink()
    with pytest.raises(CameraMissing, match="serves no frames"):
        open_source(f"network:{tmp_path}")


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_answers_and_is_no_camera_is_found_out(greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            peer, _ = listener.accept()
            peer.sendall(greeting)
            peer.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(CameraMissing, match="no camera"):
            open_source(f"network:127.0.0.1:{listener.getsockname()[1]}")


def test_serving_beyond_this_machine_without_tls_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for options in (["--host", "0.0.0.0", "--port", "7000"], [], ["--port", "65535"]):
        assert main(["simulated", *options]) == ExitCode.USAGE
    assert main(["simulated", "--host", "0.0.0.0", "--port", "7000", "--keys", str(tmp_path)]) == ExitCode.DATA_MISSING
    assert "over TLS only" in capsys.readouterr().err


def test_over_tls_both_sides_prove_who_they_are(processes: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    authority, stranger = make_authority("authority"), make_authority("stranger")
    keys = write_keys(tmp_path / "camera", authority, "127.0.0.1")
    ours = write_keys(tmp_path / "ours", authority, "127.0.0.1")
    elsewhere = write_keys(tmp_path / "elsewhere", authority, "10.9.8.7")
    others = write_keys(tmp_path / "others", stranger, "127.0.0.1")
    port, moved = free_port(4), free_port(4)
    serve(processes, "simulated", "--port", str(port), "--keys", str(keys))
    camera = open_source(f"network:127.0.0.1:{port}:{ours}")
    assert camera.info.streams == {"events", "frames", "imu"}
    assert watched(camera, 3)
    for number in (signal.SIGKILL, signal.SIGABRT):  # the process that makes the connections dies
        [connects] = connecting()
        os.kill(connects, number)
        watched(camera, 10**6)
        assert not camera.running() and camera.read() is None and not camera.ended
        camera.close()
        found = find_again(f"network:127.0.0.1:{port}:{ours}", camera.info)
        assert found is not None and watched(found, 1)
        camera = found
    camera.close()
    assert connecting() == []
    # A camera that we do not know, and we to a camera that does not know us.
    with pytest.raises(CameraMissing, match="is not taken for the camera"):
        open_source(f"network:127.0.0.1:{port}:{others}")
    os.replace(ours / "authority.pem", others / "authority.pem")
    with pytest.raises(CameraMissing):
        open_source(f"network:127.0.0.1:{port}:{others}")
    with pytest.raises(DataMissing, match=r"authority\.pem"):
        open_source(f"network:127.0.0.1:{port}:{ours}")
    # A camera with a certificate for another address; and one that asks for TLS when we do not.
    serve(processes, "simulated", "--port", str(moved), "--keys", str(elsewhere))
    with pytest.raises(CameraMissing, match="is not taken for the camera"):
        open_source(f"network:127.0.0.1:{moved}:{elsewhere}")
    with pytest.raises(CameraMissing, match="asks for TLS"):
        open_source(f"network:127.0.0.1:{port}")
