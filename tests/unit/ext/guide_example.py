#!/usr/bin/env python3
"""Write the first C block of a guide to a file; fail if it has more than 15 lines."""
import re
import sys

text = open(sys.argv[1], encoding="utf-8").read()
block = re.search(r"^```c\b[^\n]*\n(.*?)^```", text, re.M | re.S).group(1)
if len(block.splitlines()) > 15:
    sys.exit("the first example has %d lines" % len(block.splitlines()))
open(sys.argv[2], "w", encoding="utf-8").write(block)
