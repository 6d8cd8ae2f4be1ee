"""How many tests were skipped and why: python .ci/check_skips.py JUNIT.xml ALLOWED, exit code 1 where it is more than that.

More may be skipped where the real files of ../shared are absent; there the count is only printed.
"""

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

file, allowed = sys.argv[1], int(sys.argv[2])
skips = [element for element in ElementTree.parse(file).iter("skipped") if element.get("type") != "pytest.xfail"]
reasons = Counter((element.text or element.get("message")).split("Skipped: ")[-1].strip(" ()'") for element in skips)
print(f"skipped: {len(skips)} (at most {allowed} expected)")
for reason, count in reasons.most_common():
    print(f"  {count:4} {reason}")
if (Path(__file__).parents[2] / "shared" / "data").is_dir() and len(skips) > allowed:
    sys.exit(f"{len(skips) - allowed} more test(s) were skipped than expected; see the reasons above.")
