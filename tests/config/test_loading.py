from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from qiyu.config import (
    MASK,
    Settings,
    describe,
    is_loopback,
    load_settings,
    require_safe_secret,
)
from qiyu.errors import ConfigError

CONFIG_TOML = Path(__file__).parents[2] / "config.toml"
SECRET = "a secret of the tests"
FIELDS = {(section, key): info for section, value in Settings() for key, info in type(value).model_fields.items()}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(toml: str = "", **environ: str) -> Settings:
    path = Path("test.toml")
    path.write_text(toml, "utf-8")
    return load_settings(path, environ)


def problems(toml: str = "", **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(toml, **environ)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    return str(caught.value).splitlines()


def problem(toml: str = "", **environ: str) -> str:
    [line] = problems(toml, **environ)
    return line


def plain(settings: Settings) -> dict[str, Any]:
    """The settings as TOML would give them."""

    def value(of: object) -> object:
        if isinstance(of, SecretStr):
            return of.get_secret_value()
        if isinstance(of, Path):
            return str(of)
        return list(of) if isinstance(of, tuple) else of

    return {section: {key: value(of) for key, of in values} for section, values in settings}


class TestConfigToml:
    """config.toml in the project's root is the reference of all settings."""

    def test_as_it_is_it_changes_nothing(self) -> None:
        assert load_settings(CONFIG_TOML, {}) == Settings()

    def test_uncommented_it_is_the_defaults(self) -> None:
        text = re.sub(r"^#(?=[a-z_]+ = )", "", CONFIG_TOML.read_text("utf-8"), flags=re.MULTILINE)
        tables = tomllib.loads(text)
        assert tables == plain(Settings())
        assert [(section, [*table]) for section, table in tables.items()] == [
            (section, [*table]) for section, table in plain(Settings()).items()
        ]
        assert load(text) == Settings()

    @pytest.mark.parametrize(("section", "key"), FIELDS)
    def test_each_setting_has_its_description_above_it(self, section: str, key: str) -> None:
        table = CONFIG_TOML.read_text("utf-8").partition(f"\n[{section}]\n")[2].partition("\n[")[0]
        above = re.search(rf"^(.*)\n#{key} = ", table, re.MULTILINE)
        assert above is not None
        assert above[1] == f"# {FIELDS[section, key].description}"


class TestSources:
    def test_defaults_without_file_and_environment(self) -> None:
        assert load_settings(environ={}) == Settings()

    def test_the_file_in_the_working_directory(self, folder: Path) -> None:
        (folder / "config.toml").write_text("[tcp]\nport = 9000\n")
        assert load_settings(environ={}).tcp.port == 9000

    def test_the_environment_of_the_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QIYU_TCP__PORT", "9001")
        assert load_settings().tcp.port == 9001
        assert Settings().tcp.port == 8085

    def test_environment_over_file_over_default(self) -> None:
        settings = load("[tcp]\nport = 1\nhost = '::1'\n", QIYU_TCP__PORT="2")
        assert (settings.tcp.port, settings.tcp.host, settings.ws.port) == (2, "::1", 8086)

    def test_a_wrong_value_that_the_environment_replaces_does_no_harm(self) -> None:
        assert load("[tcp]\nport = 'x'\n", QIYU_TCP__PORT="2").tcp.port == 2

    def test_names_of_others_are_left_alone(self) -> None:
        settings = load(QIYU_CONFIG="x", QIYU_HOME="/x", TCP__PORT="1")
        assert settings == Settings()
        assert settings.warnings == ()

    @pytest.mark.parametrize(
        ("variable", "name"),
        [
            ("QIYU_TCP_PORT", "QIYU_TCP__PORT"),
            ("qiyu_auth_secret", "QIYU_AUTH__SECRET"),
            ("QIYU_LIMITS_LOGIN_SECONDS", "QIYU_LIMITS__LOGIN_SECONDS"),
            ("QIYU_TCP_PROT", "QIYU_TCP__PORT"),
        ],
    )
    def test_a_variable_with_one_underscore_too_few_is_warned_of(self, variable: str, name: str) -> None:
        settings = load(**{variable: "1"})
        assert settings == Settings()
        [warning] = settings.warnings
        assert warning == f"the variable {variable} is not used; did you mean {name}, with two underscores?"

    def test_the_case_of_a_variable_does_not_matter(self) -> None:
        assert load(qiyu_tcp__Port="2").tcp.port == 2

    def test_a_variable_in_two_spellings(self) -> None:
        assert problem(qiyu_tcp__port="2", QIYU_TCP__PORT="2") == (
            "tcp.port is set twice: by QIYU_TCP__PORT and by qiyu_tcp__port"
        )

    def test_a_byte_order_mark_is_skipped(self, folder: Path) -> None:
        path = folder / "bom.toml"
        path.write_bytes(b"\xef\xbb\xbf[tcp]\r\nport = 1\r\n")
        assert load_settings(path, {}).tcp.port == 1


class TestFiles:
    def test_missing(self) -> None:
        with pytest.raises(ConfigError, match=r"^nowhere/x.toml: cannot be read: No such file"):
            load_settings(Path("nowhere/x.toml"), {})

    def test_unreadable(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
            load_settings(folder, {})

    def test_a_folder_in_place_of_the_usual_file(self, folder: Path) -> None:
        (folder / "config.toml").mkdir()
        with pytest.raises(ConfigError, match=r"^config.toml: cannot be read"):
            load_settings(environ={})

    def test_not_toml(self) -> None:
        assert re.fullmatch(r"test.toml: is not TOML: .*\(at line 2, column \d+\)", problem("[tcp]\nport=\n"))

    def test_a_number_that_python_refuses_to_read(self) -> None:
        assert problem(f"[tcp]\nport = {'9' * 5000}\n").startswith("test.toml: is not TOML: ")

    def test_not_utf_8(self, folder: Path) -> None:
        path = folder / "latin.toml"
        path.write_bytes(b"[tcp]\nhost = '\xe9'\n")
        with pytest.raises(ConfigError, match=r"is not UTF-8 text \(at byte 14\)"):
            load_settings(path, {})


class TestUnknownNames:
    @pytest.mark.parametrize(
        ("toml", "line"),
        [
            ("[tcp]\nprot = 1", "tcp.prot (from test.toml): unknown setting; did you mean tcp.port?"),
            ("[tpc]\nport = 1", "tpc (from test.toml): unknown section; did you mean tcp?"),
            ("[TCP]\nport = 1", "TCP (from test.toml): unknown section; did you mean tcp?"),
            ("[tcp]\nPort = 1", "tcp.Port (from test.toml): unknown setting; did you mean "),
            (
                "[tcp]\nconnections = 1",
                "tcp.connections (from test.toml): unknown setting; did you mean http.connections or "
                "limits.connections?",
            ),
            (
                "window = 1",
                "window (from test.toml): unknown setting; did you mean ack.window?",
            ),
            ("[flowers]\nred = 1", "flowers (from test.toml): unknown section"),
            ("[tcp]\nflowers = 1", "tcp.flowers (from test.toml): unknown setting"),
            ("tcp = 1", "tcp (from test.toml): expected a section, [tcp], with settings below it"),
            ("[[tcp]]\nport = 1", "tcp (from test.toml): expected a section, [tcp], "),
            ('"a\\nb\\u001b" = 1', "a\\nb\\x1b (from test.toml): unknown section"),
        ],
    )
    def test_in_the_file(self, toml: str, line: str) -> None:
        assert problem(toml).startswith(line)

    @pytest.mark.parametrize(
        ("variable", "line"),
        [
            ("QIYU_TCP__PROT", "tcp.prot (from QIYU_TCP__PROT): unknown setting; did you mean tcp.port?"),
            ("QIYU_TPC__PORT", "tpc.port (from QIYU_TPC__PORT): unknown setting; did you mean tcp.port?"),
            ("QIYU___PORT", ".port (from QIYU___PORT): unknown setting; did you mean tcp.port or "),
            ("QIYU_A__B__C", "a.b.c (from QIYU_A__B__C): unknown setting"),
        ],
    )
    def test_in_the_environment(self, variable: str, line: str) -> None:
        assert problem(**{variable: "1"}).startswith(line)

    def test_their_values_are_not_shown(self) -> None:
        text = "\n".join(problems(f"[auth]\nsecrt = '{SECRET}'", QIYU_AUTH__SECERT=SECRET))
        assert SECRET not in text
        assert text.count("did you mean auth.secret?") == 2


class TestWrongValues:
    def test_all_are_listed(self) -> None:
        assert problems(
            """
            [tcp]
            prot = 1
            port = 65536
            [log]
            level = "loud"
            [ack]
            window = 0
            """,
            QIYU_WS__PORT="8_5",
            QIYU_FOO__BAR="1",
        ) == [
            "tcp.prot (from test.toml): unknown setting; did you mean tcp.port?",
            "foo.bar (from QIYU_FOO__BAR): unknown setting",
            "tcp.port = 65536 (from test.toml): expected a whole number from 0 to 65535",
            'ws.port = "8_5" (from QIYU_WS__PORT): expected a whole number from 0 to 65535',
            "ack.window = 0 (from test.toml): expected a whole number from 1 to 2147483647",
            'log.level = "loud" (from test.toml): expected debug, info, warning or error',
        ]

    @pytest.mark.parametrize("value", ["-1", "65536", "1.0", "true", "'85'", "[85]", "{a = 1}", "nan"])
    def test_a_port_in_the_file(self, value: str) -> None:
        line = problem(f"[tcp]\nport = {value}")
        assert line.endswith("(from test.toml): expected a whole number from 0 to 65535")

    @pytest.mark.parametrize("value", ["", " ", " 85 ", "8_5", "+85", "-1", "85.0", "0x55", "٨٥", "1e3", "9" * 5000])
    def test_a_port_in_the_environment(self, value: str) -> None:
        line = problem(QIYU_TCP__PORT=value)
        assert line.endswith("(from QIYU_TCP__PORT): expected a whole number from 0 to 65535")
        assert len(line) < 200

    @pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "86401", "true", "'1'"])
    def test_a_heartbeat(self, value: str) -> None:
        assert problem(f"[session]\nheartbeat_seconds = {value}").endswith(
            "(from test.toml): expected a number of seconds above 0, at most 86400"
        )

    @pytest.mark.parametrize("host", ["", " ", "a b", "[::1]", "127.0.0.1:80", "http://x", "::x", "a/b", "x\n"])
    def test_a_host(self, host: str) -> None:
        assert problem(QIYU_HTTP__HOST=host).endswith(
            "expected a host name or an IP address, without a port, or a list of them"
        )

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("WS__PUBLIC_URL", "wss://live.example.com:65536"),
            ("WS__PUBLIC_URL", "wss://live.example.com:x/im"),
            ("WS__PUBLIC_URL", "wss://live.example.com/im?a=b"),
            ("WS__PUBLIC_URL", "wss://:8086"),
            ("WS__PUBLIC_URL", "https://live.example.com"),
            ("RTMP__PUBLIC_URL", "rtmp://live.example.com:0/live"),
            ("VIDEO__PLAY_URL", "https://cdn.example.com:99999/{room}"),
            ("TCP__PUBLIC_ADDRESS", "live.example.com:99999"),
            ("WS__PATH", "/"),
            ("WS__PATH", "im"),
            ("WS__PATH", "/im/"),
            ("WS__PATH", "/a//b"),
            ("WS__PATH", "/a b"),
            ("WS__PATH", "/%69m"),
            ("WS__PATH", "/im\n"),
        ],
    )
    def test_an_address_that_clients_cannot_use(self, name: str, value: str) -> None:
        assert problem(**{f"QIYU_{name}": value}).startswith(name.lower().replace("__", ".") + " = ")

    def test_a_certificate_without_its_key(self) -> None:
        assert problem("[tls]\ncertificate = 'a.pem'") == (
            'tls.certificate = "a.pem" (from test.toml) and tls.key = "" (the default): '
            "expected both of them, or neither"
        )
        assert "expected both of them, or neither" in problem(QIYU_TLS__KEY="a.key")

    @pytest.mark.parametrize(
        ("name", "value"),
        [("KEY", "~/a.key"), ("CERTIFICATE", "a\nb"), ("LISTENERS", "ws,https"), ("LISTENERS", "all")],
    )
    def test_tls_that_cannot_be(self, name: str, value: str) -> None:
        assert f"tls.{name.lower()} = " in problems(**{f"QIYU_TLS__{name}": value})[0]

    @pytest.mark.parametrize("dir_", ["", ".", "~", "~/qiyu", "a\x00b", "a\nb", "\udcff"])
    def test_a_folder(self, dir_: str) -> None:
        assert problem(QIYU_DATA__DIR=dir_).endswith("expected the name of a folder, with no ~ in front")

    @pytest.mark.parametrize(
        "origin",
        [
            "live.example.com",
            "https://live.example.com/",
            "https://live.example.com/page",
            "https://Live.example.com",
            "HTTPS://live.example.com",
            "https://live.example.com:443",
            "http://live.example.com:80",
            "https://*.example.com",
            "https://me@live.example.com",
            "https://",
            "",
        ],
    )
    def test_an_origin_that_no_browser_would_send(self, origin: str) -> None:
        line = problem(f"[ws]\nallowed_origins = ['https://ok.example.com', '{origin}']")
        assert "expected a list of origins such as" in line

    @pytest.mark.parametrize("value", ["'https://a.example'", "[1]", "1", "{}", "true"])
    def test_origins_that_are_no_list_of_texts(self, value: str) -> None:
        assert "expected a list of origins" in problem(f"[ws]\nallowed_origins = {value}")

    @pytest.mark.parametrize("value", ["1", "'true'", "[]"])
    def test_a_yes_or_no(self, value: str) -> None:
        assert problem(f"[living]\nrequire_open_room = {value}").endswith("expected true or false")

    @pytest.mark.parametrize("key", [key for section, key in FIELDS if section == "limits"])
    def test_a_limit_is_not_negative_and_0_is_none(self, key: str) -> None:
        assert getattr(load(f"[limits]\n{key} = 0").limits, key) == 0
        line = problem(f"[limits]\n{key} = -1")
        assert line.startswith(f"limits.{key} = -1 (from test.toml): expected a ")
        assert "from 0 (no limit) to " in line

    def test_a_soft_limit_above_the_hard_one(self) -> None:
        assert problem("[limits]\noutbox_hard_bytes = 5") == (
            "limits.outbox_soft_bytes = 1048576 (the default) and limits.outbox_hard_bytes = 5 (from test.toml): "
            "expected outbox_soft_bytes no larger than outbox_hard_bytes"
        )
        line = problem("[limits]\noutbox_hard_bytes = 5", QIYU_LIMITS__OUTBOX_SOFT_BYTES="6")
        assert line.startswith("limits.outbox_soft_bytes = 6 (from QIYU_LIMITS__OUTBOX_SOFT_BYTES) and ")

    @pytest.mark.parametrize(("soft", "hard"), [(5, 5), (5, 0), (0, 5), (0, 0)])
    def test_a_soft_limit_below_the_hard_one_or_none(self, soft: int, hard: int) -> None:
        load(f"[limits]\noutbox_soft_bytes = {soft}\noutbox_hard_bytes = {hard}")

    @pytest.mark.parametrize("secret", ["fifteen letters", "x", " " * 20])
    def test_a_short_secret_is_not_shown(self, secret: str) -> None:
        for line in (problem(f"[auth]\nsecret = '{secret}'"), problem(QIYU_AUTH__SECRET=secret)):
            assert re.fullmatch(
                r'auth.secret = \*{8} \(from \S+\): expected a text of at least 16 characters, or ""', line
            )

    def test_a_secret_of_the_wrong_type_is_not_shown(self) -> None:
        assert "12345" not in problem("[auth]\nsecret = 12345")
        assert "12345" not in problem("[auth]\nsecret = ['12345']")

    @pytest.mark.parametrize("section", ["database", "redis"])
    def test_a_url_is_not_shown(self, section: str) -> None:
        line = problem(f"[{section}]\nurl = 'user:hunter2@host'")
        assert line == (
            f"{section}.url = ******** (from test.toml): "
            'expected a URL such as scheme://user:password@host:port/name, or ""'
        )

    def test_pydantic_does_not_show_it_either(self) -> None:
        with pytest.raises(ValidationError) as caught:
            Settings(auth={"secret": "hunter2"})  # type: ignore[arg-type]
        assert "hunter2" not in str(caught.value)

    def test_a_long_or_strange_value_stays_on_its_line(self) -> None:
        line = problem(QIYU_TCP__HOST="x\n\x1b[2J\udcff" + "y" * 1000)
        assert line.isprintable()
        assert len(line) < 200
        assert r"\x1b[2J" in line or r"\u001b[2J" in line

    def test_each_setting_says_what_it_expects(self) -> None:
        for section, key in FIELDS:
            line = problem(f"[{section}]\n{key} = {{}}")
            assert re.match(rf"{section}\.{key} = .* \(from test.toml\): expected \w", line)


class TestRightValues:
    @pytest.mark.parametrize(
        ("text", "origins"),
        [
            ("", ()),
            ("*", ("*",)),
            ("https://a.example", ("https://a.example",)),
            ("https://a.example, http://b.example:8000,", ("https://a.example", "http://b.example:8000")),
            ('["https://a.example", "http://[::1]:80"]', None),
            ('["https://a.example", "http://[::1]:81"]', ("https://a.example", "http://[::1]:81")),
            ("[]", ()),
            ("capacitor://localhost", ("capacitor://localhost",)),
            ("[not json", None),
            ("[1]", None),
        ],
    )
    def test_a_list_in_the_environment(self, text: str, origins: tuple[str, ...] | None) -> None:
        if origins is None:
            assert "expected a list of origins" in problem(QIYU_WS__ALLOWED_ORIGINS=text)
        else:
            assert load(QIYU_WS__ALLOWED_ORIGINS=text).ws.allowed_origins == origins

    @pytest.mark.parametrize(
        ("text", "value"),
        [("true", True), ("FALSE", False), ("1", True), ("0", False), ("yes", True), ("no", False)],
    )
    def test_a_yes_or_no_in_the_environment(self, text: str, value: bool) -> None:
        assert load(QIYU_LIVING__REQUIRE_OPEN_ROOM=text).living.require_open_room is value

    @pytest.mark.parametrize(("text", "value"), [("5", 5), ("0.25", 0.25), ("007", 7)])
    def test_seconds_in_the_environment(self, text: str, value: float) -> None:
        assert load(QIYU_SESSION__HEARTBEAT_SECONDS=text).session.heartbeat_seconds == value

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "fe80::1%eth0", "live.example.com", "localhost", "a_b-c"])
    def test_a_host(self, host: str) -> None:
        assert load(QIYU_TCP__HOST=host).tcp.host == host

    @pytest.mark.parametrize("text", ["127.0.0.1, ::1", '["127.0.0.1", "::1"]'])
    def test_several_hosts(self, text: str) -> None:
        assert load(QIYU_TCP__HOST=text).tcp.host == ("127.0.0.1", "::1")
        assert load("[tcp]\nhost = ['127.0.0.1', '::1']\n").tcp.host == ("127.0.0.1", "::1")
        assert problem("[tcp]\nhost = []\n").startswith("tcp.host = [] (from")
        assert problem(QIYU_TCP__HOST="::1, a b").startswith("tcp.host = ")

    @pytest.mark.parametrize("url", ["wss://live.example.com", "wss://a:8443/im/", "ws://[::1]:8086/a/b", "ws://a/"])
    def test_an_address_with_a_path_or_without(self, url: str) -> None:
        assert load(QIYU_WS__PUBLIC_URL=url).ws.public_url == url

    def test_a_certificate_and_its_key(self) -> None:
        tls = load("[tls]\ncertificate = 'a.pem'\nkey = '/b/c.key'", QIYU_TLS__LISTENERS="ws, http").tls
        assert (tls.certificate, tls.key, tls.listeners) == ("a.pem", "/b/c.key", ("ws", "http"))

    @pytest.mark.parametrize("path", ["", "/im", "/apps/im-1.0", "/~a/_b"])
    def test_a_path(self, path: str) -> None:
        assert load(QIYU_WS__PATH=path).ws.path == path

    @pytest.mark.parametrize("dir_", ["data", "/var/lib/qiyu", "./数据", "a b"])
    def test_a_folder(self, dir_: str) -> None:
        assert load(QIYU_DATA__DIR=dir_).data.dir == Path(dir_)

    def test_a_secret(self) -> None:
        assert load(QIYU_AUTH__SECRET=SECRET).auth.secret.get_secret_value() == SECRET

    def test_settings_are_frozen(self) -> None:
        settings = load()
        with pytest.raises(ValidationError):
            settings.tcp = settings.tcp
        with pytest.raises(ValidationError):
            settings.tcp.port = 1
        assert hash(settings) == hash(Settings())

    def test_where_it_came_from_makes_no_difference(self) -> None:
        assert load(QIYU_TCP__PORT="8085") == Settings()
        assert load(QIYU_TCP__PORT="8085").origin("tcp.port") == "QIYU_TCP__PORT"
        assert Settings().origin("tcp.port") == ""

    @pytest.mark.property
    @given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])))
    def test_any_text_in_the_environment_is_a_value_or_a_problem(self, text: str) -> None:
        """Whatever a variable holds, the answer is settings or a ConfigError, one printable line a problem."""
        for section, key in FIELDS:
            name = f"QIYU_{section}__{key}".upper()
            try:
                load_settings(None, {name: text})
            except ConfigError as error:
                assert re.search(rf"{section}\.{key} = .* \(from {name}\).*: expected ", str(error))
                assert str(error).isprintable()


class TestDescribe:
    def test_the_defaults(self) -> None:
        assert tomllib.loads(describe(Settings())) == plain(Settings())
        assert "#" not in describe(Settings())

    def test_it_says_where_a_value_came_from(self) -> None:
        text = describe(load("[ws]\nport = 1\nallowed_origins = ['*']", QIYU_DATA__DIR='a"b\\c 数据'))
        assert "port = 1  # from test.toml\n" in text
        assert 'allowed_origins = ["*"]  # from test.toml\n' in text
        assert 'dir = "a\\"b\\\\c 数据"  # from QIYU_DATA__DIR\n' in text
        assert tomllib.loads(text)["data"]["dir"] == 'a"b\\c 数据'

    @pytest.mark.parametrize("secret", [SECRET, f"redis://{SECRET}", f"x://a:b@{SECRET}"])
    def test_the_secret_is_masked(self, secret: str) -> None:
        settings = load(QIYU_AUTH__SECRET=secret)
        assert f'secret = "{MASK}"  # from QIYU_AUTH__SECRET' in describe(settings)
        assert SECRET not in describe(settings)
        assert SECRET not in repr(settings)

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("redis://host:6379/0", "redis://host:6379/0"),
            ("redis://user:hunter2@host:6379/0", "redis://user:***@host:6379/0"),
            ("redis://:hunter2@host", "redis://:***@host"),
            ("redis://user:hunter2/@hunter2:hunter2@host/0", "redis://user:***@host/0"),
            ("redis://me@there:hunter2@host/0", "redis://me@there:***@host/0"),
            ("redis://a/b:hunter2@host/0", "redis://a/b:***@host/0"),
            ("unix:///run/redis.sock?db=1&password=hunter2", "unix:///run/redis.sock?db=1&password=***"),
            ("redis://h?ssl_Password=hunter2#hunter2&db=1", "redis://h?ssl_Password=***&db=1"),
        ],
    )
    def test_passwords_in_urls_are_masked(self, url: str, shown: str) -> None:
        for variable in ("QIYU_REDIS__URL", "QIYU_DATABASE__URL"):
            settings = load(**{variable: url})
            assert f'url = "{shown}"  # from {variable}' in describe(settings)
            assert "hunter2" not in repr(settings)

    @pytest.mark.property
    @given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1))
    def test_a_text_comes_out_as_it_went_in(self, text: str) -> None:
        """What `describe` prints is TOML, whatever the texts in it."""
        try:
            settings = load_settings(None, {"QIYU_DATA__DIR": text})
        except ConfigError:
            return
        assert tomllib.loads(describe(settings)) == plain(settings)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.255.0.9", True),
        ("::1", True),
        ("localhost", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


class TestSafeSecret:
    def test_none_is_needed_on_this_machine(self) -> None:
        require_safe_secret(Settings())
        require_safe_secret(load(QIYU_TCP__HOST="::1", QIYU_WS__HOST="localhost"))

    @pytest.mark.parametrize("section", ["tcp", "ws", "http"])
    def test_it_is_needed_where_others_can_connect(self, section: str) -> None:
        environ = {f"QIYU_{section.upper()}__HOST": "0.0.0.0"}
        with pytest.raises(ConfigError, match=rf'other machines can reach {section}.host = "0.0.0.0"') as caught:
            require_safe_secret(load(**environ))
        assert 'python3 -c "import secrets; print(secrets.token_urlsafe(32))"' in str(caught.value)
        require_safe_secret(load(**environ, QIYU_AUTH__SECRET=SECRET))

    def test_it_is_needed_by_several_instances(self) -> None:
        environ = {
            "QIYU_REDIS__URL": "redis://:hunter2@host",
            "QIYU_DATABASE__URL": "postgresql://me:hunter2@host/name",
            "QIYU_CLUSTER__SECRET": "hunter2" + SECRET,
        }
        with pytest.raises(ConfigError, match="several instances") as caught:
            require_safe_secret(load(**environ))
        assert "hunter2" not in str(caught.value)
        require_safe_secret(load(**environ, QIYU_AUTH__SECRET=SECRET))

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"QIYU_DATABASE__URL": ""}, "database.url is not that of a database server"),
            ({"QIYU_DATABASE__URL": "sqlite:///hunter2"}, "database.url is not that of a database server"),
            ({"QIYU_CLUSTER__SECRET": ""}, "cluster.secret is empty"),
            ({"QIYU_CLUSTER__HOST": "0.0.0.0"}, "cluster.public_address is empty"),
        ],
    )
    def test_several_instances_need_more_in_common(self, change: dict[str, str], expected: str) -> None:
        environ = {
            "QIYU_REDIS__URL": "redis://:hunter2@host",
            "QIYU_DATABASE__URL": "postgresql://me:hunter2@host/name",
            "QIYU_CLUSTER__SECRET": "hunter2" + SECRET,
            "QIYU_AUTH__SECRET": SECRET,
        }
        require_safe_secret(load(**environ))
        with pytest.raises(ConfigError, match=expected) as caught:
            require_safe_secret(load(**environ | change))
        assert "hunter2" not in str(caught.value)
        require_safe_secret(load(**{name: value for name, value in (environ | change).items() if "REDIS" not in name}))
