"""What commands draw for people: screens, progress bars, live views. The only room that imports `rich`.

Imports `attribution`, `configuration`, `detect`, `errors`, `experiment`, `journal`, `model`, `outlets`, `process` and
`report`. Only `commands` imports it, and only when something is drawn: not for `--help`, and never in the daemon.
"""
