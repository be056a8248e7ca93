"""A fleet changes its authority, over real TLS: who saw both goes on, who saw only the old one must enrol again."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from real_fleet import Client, Server, make_base, make_data, run, wait_for

from client.enrolment import ClientPaths, download_model, enrol, refresh_authorities
from mcoe_model.errors import DataInvalid, ExitCode, ServerUnreachable
from mcoe_model.invitation import Invitation
from server.certificates import fingerprint, read_certificate


def served(server: Server) -> str:
    """The fingerprint of the certificate that the server shows."""
    pem = ssl.get_server_certificate(("127.0.0.1", server.port))
    return fingerprint(x509.load_pem_x509_certificate(pem.encode()))


def serves_anew(server: Server, before: str) -> bool:
    """Whether it shows another certificate; while it starts again it may close a connection at any point."""
    try:
        return served(server) != before
    except OSError:
        return False


def authorities(path: Path) -> int:
    return path.read_text().count("BEGIN CERTIFICATE")


def test_before_during_and_after_a_change_of_authority(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    server = Server(tmp_path / "server", make_base(data, tmp_path / "base.safetensors"))
    server.start("--min-clients", 1, "--pause-s", 2, "--deadline-s", 600)
    folder = server.folder / "certificates"

    def join(name: str) -> ClientPaths:
        paths = ClientPaths(tmp_path / name)
        line = server.ask("clients", "invite", name)["invitation"]
        enrol(paths, Invitation.from_line(line), data, "001")
        return paths

    try:
        # before
        sleeper, awake = join("sleeper"), join("awake")
        unused = Invitation.from_line(server.ask("clients", "invite", "slow")["invitation"])
        assert not refresh_authorities(awake, server.address)
        said = run("mcoe-server", "certificates", "finish-rotation", "--dir", server.folder, fails=True)
        assert said.returncode == ExitCode.DATA_MISSING and "rotate-authority" in said.stderr

        # during: both are trusted, and the server still has its old certificate
        before = served(server)
        new = server.ask("certificates", "rotate-authority")["fingerprint"]
        again = run("mcoe-server", "certificates", "rotate-authority", "--dir", server.folder, fails=True)
        assert again.returncode == ExitCode.OUTPUT_EXISTS and "finish-rotation" in again.stderr
        assert served(server) == before
        assert refresh_authorities(awake, server.address) and not refresh_authorities(awake, server.address)
        assert (authorities(awake.authority), authorities(sleeper.authority)) == (2, 1)
        for paths in (sleeper, awake, join("between")):
            assert download_model(paths, server.address).is_file()
        learner = Client(tmp_path / "learner", data, "002", "learner")
        learner.enrol(server)
        learner.start()
        server.wait_for_round(1, 300)

        # after: the running server takes the new certificate up, and its wearables go on
        assert server.ask("certificates", "finish-rotation")["fingerprint"] == new
        assert fingerprint(read_certificate(folder / "ca.crt")) == new and not list(folder.glob("next-ca.*"))
        wait_for(lambda: serves_anew(server, before), 120, "the new certificate")
        trusted = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        assert httpx.get(f"https://{server.address}/health", verify=trusted).status_code == 200
        download_model(awake, server.address).unlink()
        assert download_model(awake, server.address).is_file()
        assert refresh_authorities(awake, server.address) and authorities(awake.authority) == 1
        assert download_model(awake, server.address).is_file()
        server.wait_for_round(len(server.published()) + 2, 300)
        with pytest.raises(ServerUnreachable, match=r"never told of; .* enrol again, in a new folder") as refused:
            download_model(sleeper, server.address)
        assert len(str(refused.value).splitlines()) == 1
        with pytest.raises(DataInvalid, match="nothing was sent"):
            enrol(ClientPaths(tmp_path / "slow"), unused, data, "001")
        assert download_model(join("sleeper-again"), server.address).is_file()
        assert learner.process is not None
        learner.process.end()
    finally:
        assert server.process is not None
        server.process.end()
