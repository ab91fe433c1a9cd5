"""The figures of example 01, computed without Tidemill: python3 expected.py FLIGHTS.csv[.gz] > EXPECTED.csv"""

import csv
import gzip
import sys
from collections import defaultdict

path = sys.argv[1]
opened = gzip.open(path, "rt") if path.endswith(".gz") else open(path)
groups = defaultdict(lambda: [0, 0, []])
with opened as lines:
    for row in csv.DictReader(lines):
        hour = f"{row['year']}-{int(row['month']):02}-{int(row['day']):02}T{int(row['hour']):02}"
        group = groups[hour, row["origin"]]
        group[0] += 1
        if row["dep_time"] == "NA":
            group[1] += 1
        else:
            group[2].append(int(row["dep_delay"]))

print("hour,origin,flights,cancelled,mean_delay,max_delay")
for (hour, origin), (flights, cancelled, delays) in sorted(groups.items()):
    mean = repr(sum(delays) / len(delays)) if delays else ""
    print(f"{hour},{origin},{flights},{cancelled},{mean},{max(delays) if delays else ''}")
