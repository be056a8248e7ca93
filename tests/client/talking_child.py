"""A child process for test_children: says what it is told, and ends in whichever way it is asked to."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

print(json.dumps({"is": "ready", "pid": os.getpid(), "said": sys.argv[1:]}), flush=True)
for line in sys.stdin:
    command = json.loads(line)
    match command["do"]:
        case "quit":
            break
        case "repeat":
            print(json.dumps({"is": "repeated", "text": command["text"]}), flush=True)
        case "babble":
            print("no event", flush=True)
        case "mumble":
            print('{"was": 1}', flush=True)
        case "abort":
            os.abort()
        case "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print(json.dumps({"is": "hangs"}), flush=True)
            time.sleep(600)
