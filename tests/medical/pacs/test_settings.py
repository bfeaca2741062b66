"""The file of settings: what is allowed, and how it says what is not."""

import pytest

from medical.pacs.errors import ConfigError
from medical.pacs.settings import example, read_settings


@pytest.fixture
def read(tmp_path):
    def made(change=lambda text: text):
        file = tmp_path / "pacs.toml"
        file.write_text(change(example()))
        return read_settings(file)

    return made


def test_the_example_is_valid_and_listens_on_the_loopback(read, tmp_path):
    settings = read()
    assert settings.node.loopback
    assert settings.spool.folder == tmp_path / "spool"
    assert settings.analysis.folder == tmp_path
    assert settings.destinations[0].verify == "commitment"


def test_every_line_that_the_example_comments_out_is_valid(read):
    def uncomment(text):
        lines = []
        for line in text.splitlines():
            bare = line.removeprefix("# ")
            lines.append(bare if bare.startswith("[") or " = " in bare.split("  #")[0] else line)
        return "\n".join(lines)

    settings = read(uncomment)
    assert settings.node.tls is not None
    assert settings.folder is not None
    assert settings.web is not None
    assert [one.type for one in settings.destinations] == ["dicom", "dicomweb"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("port = 11112", "prot = 11112", "node.prot: there is no such key"),
        ("port = 11112", "port = 70000", "node.port"),
        ('address = "127.0.0.1"', 'address = "everywhere"', "node.address"),
        ('ae_title = "ANOMALY"', 'ae_title = "SEVENTEEN LETTERS"', "node.ae_title: must be 1 to 16"),
        ('verify = "commitment"', "tls = true", "need [node.tls]"),
        ('verify = "commitment"', 'verify = "hope"', "destinations"),
        ('analyser = "medical.serving:analyser"', 'analyser = "medical.serving"', "package.module:function"),
        ("[[peers]]                            # who", "[[piers]] # who", "there is no such key"),
        ("[node]", "[node", "is no TOML"),
    ],
)
def test_faults_are_named_with_their_place(read, old, new, words):
    assert old in example()
    with pytest.raises(ConfigError) as caught:
        read(lambda text: text.replace(old, new))
    assert words in str(caught.value)


def test_a_secret_in_the_wrong_place_is_not_repeated(read):
    with pytest.raises(ConfigError) as caught:
        read(lambda text: text + '[folder]\npath = "x"\npassword = "hunter2"\n')
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        read(lambda text: text + '[web]\nurl = "http://a:hunter2@b"\nquery = {StudyDate = "today"}\n')
    assert "hunter2" not in str(caught.value)
