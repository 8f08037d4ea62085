"""The login tokens that docs/integrating.md shows how to make, by each of its programs that can run here."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from documents import blocks
from qiyu.protocol.packet import APP_ID
from qiyu.services.tokens import Identity, Tokens

SECRET = "a sécret for tests alone"
NAMES = ["ann", "小明 🏴", 'quo"te \\ back/slash', ""]

MAINS = {
    "python": "import sys\nprint(login_token(sys.argv[1], int(sys.argv[2]), sys.argv[3]))\n",
    "js": "const [secret, id, name] = process.argv.slice(2);\nconsole.log(loginToken(secret, Number(id), name));\n",
    "java": """
public final class Main {
    public static void main(String[] args) throws Exception {
        System.out.println(LoginToken.of(args[0], Long.parseLong(args[1]), args[2], 10001, 300));
    }
}
""",
    "go": """
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

func main() {
	id, _ := strconv.ParseInt(os.Args[2], 10, 64)
	fmt.Println(loginToken(os.Args[1], id, os.Args[3], 10001, 5*time.Minute))
}
""",
}


def program(language: str, folder: Path) -> list[str]:
    """The command that makes a token of a secret, a user and a name, with what the page says and a main of ours."""
    tools = {"python": [sys.executable], "js": ["node"], "java": ["javac", "java"], "go": ["go"]}[language]
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    (code,) = [block for block in blocks("docs/integrating.md", language) if "oken" in block]
    main = MAINS[language]
    if language == "python":
        (folder / "token.py").write_text(code + main)
        return [sys.executable, "-I", str(folder / "token.py")]
    if language == "js":
        (folder / "token.mjs").write_text(code + main)
        return ["node", str(folder / "token.mjs")]
    if language == "java":
        (folder / "LoginToken.java").write_text(code)
        (folder / "Main.java").write_text(main)
        command = ["javac", "-encoding", "UTF-8", "-d", str(folder), *map(str, sorted(folder.glob("*.java")))]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        return ["java", "-Dsun.jnu.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-cp", str(folder), "Main"]
    (folder / "token.go").write_text(code)
    (folder / "main.go").write_text(main)
    (folder / "go.mod").write_text("module token\n\ngo 1.21\n")
    subprocess.run(
        [str(shutil.which("go")), "build", "-o", "token", "."], cwd=folder, check=True, capture_output=True, timeout=300
    )
    return [str(folder / "token")]


@pytest.mark.parametrize("language", MAINS)
def test_a_token_that_a_backend_makes_lets_its_user_in(language: str, tmp_path: Path) -> None:
    command = program(language, tmp_path)
    for name in NAMES:
        before = time.time_ns() // 1_000_000
        made = subprocess.run(
            [*command, SECRET, "10007", name],
            check=True,
            capture_output=True,
            timeout=120,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        )
        token = made.stdout.decode().strip()
        tokens = Tokens(SECRET, 300)
        now = time.time_ns() // 1_000_000
        assert tokens.verify(token, user_id=10007, app_id=APP_ID, now_ms=now) == Identity(APP_ID, 10007, name, "")
        with pytest.raises(Exception, match="has expired"):
            tokens.verify(token, user_id=10007, app_id=APP_ID, now_ms=now + 301_000)
        assert tokens.verify(token, user_id=10007, app_id=APP_ID, now_ms=before + 299_000)
