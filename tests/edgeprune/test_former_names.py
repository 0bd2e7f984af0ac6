"""Options that were renamed are taken under both names; help shows the present one."""

import pytest
from click.testing import CliRunner

from edgeprune.cli import cli
from edgeprune_formats import open_pack


@pytest.mark.parametrize("command", ["build", "convert"])
def test_help_shows_the_present_name_alone(command):
    text = CliRunner().invoke(cli, [command, "--help"]).output
    assert "--tile" in text
    assert "--block" not in text


@pytest.mark.parametrize("option", ["--tile", "--block"])
def test_both_names_of_tile_are_taken(make_pack, tmp_path, option):
    path, _ = make_pack(samples=3)
    arguments = ["convert", str(path), "-o", str(tmp_path / "q.h5"), option, "8"]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    assert open_pack(tmp_path / "q.h5").header.tile == "8"
