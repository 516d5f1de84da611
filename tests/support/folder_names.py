"""Valid and invalid folder names for all operating systems."""

from __future__ import annotations

from hypothesis import strategies as st

GOOD = [
    "my_run", "мой кот", "größe", "犬", "v1.5", "my dog (2)", "a-b_c", "-x", "console", "CON2", "com10",
    "nullpoint", "x" * 100, "я" * 100,
]  # fmt: skip


BAD = [
    "", " ", ".", "..", "...", "a/b", "a\\b", "/", "\\", "../x", "..\\x", "/etc", "C:", "C:x", "C:\\x", "x:stream",
    "~/x?", "a*", 'a"b', "a|b",
    "<a>", "con", "CON", "Con.txt", "nul", "nul.txt", "NUL .txt", "aux.", "lpt9", "com1.tar.gz", "com¹", "CONIN$",
    ".hidden", "a.", "a ", " a", "a\n",
    "a\tb", "a\x00", "a\u2028", "\ud800", "x" * 101, "犬" * 100, "🐕" * 60,
]  # fmt: skip


# Letters that matter to paths, mixed with any others.
texts = st.one_of(
    st.text(),
    st.lists(st.sampled_from([*"./\\:~ -$%con1\n", "../", "..\\", "\x7f", "¹", "é", "İ"]), max_size=12).map("".join),
    st.sampled_from([*GOOD, *BAD]).flatmap(
        lambda name: st.sampled_from([name, f"{name}.txt", f"{name} ", name.upper(), f"../{name}"])
    ),
)
