//! What the documented script prints for the records of the tests.

pub(super) const FIVE_RUNS: &str = "\
================================================================================
PERFORMANCE TREND ANALYSIS
================================================================================
Total runs analyzed: 5

Total Execution Time:
  Mean:   9.6406s
  Median: 3.3724s
  Min:    1.7184s
  Max:    30.0991s
  StdDev: 13.6613s

api_fetch:
  Mean:   7.2365s
  Median: 1.6353s
  Min:    1.2294s
  Max:    30.0983s

metadata_fetch:
  Mean:   0.5017s
  Median: 0.5129s
  Min:    0.4227s
  Max:    0.5581s

deduplication:
  Mean:   0.0001s
  Median: 0.0002s
  Min:    0.0001s
  Max:    0.0002s

save_events:
  Mean:   0.7602s
  Median: 0.7576s
  Min:    0.7373s
  Max:    0.7858s

metadata_update:
  Mean:   0.5322s
  Median: 0.4759s
  Min:    0.4597s
  Max:    0.6610s

New Events per Run:
  Mean:   1.75
  Median: 1.00
  Min:    0
  Max:    5
  Total:  7

Errors: 2 errors across 5 runs
  Error rate: 20.00%

";

pub(super) const ONE_RUN: &str = "\
================================================================================
PERFORMANCE TREND ANALYSIS
================================================================================
Total runs analyzed: 1

Total Execution Time:
  Mean:   3.4075s
  Median: 3.4075s
  Min:    3.4075s
  Max:    3.4075s

api_fetch:
  Mean:   1.6353s
  Median: 1.6353s
  Min:    1.6353s
  Max:    1.6353s

metadata_fetch:
  Mean:   0.5581s
  Median: 0.5581s
  Min:    0.5581s
  Max:    0.5581s

deduplication:
  Mean:   0.0002s
  Median: 0.0002s
  Min:    0.0002s
  Max:    0.0002s

save_events:
  Mean:   0.7373s
  Median: 0.7373s
  Min:    0.7373s
  Max:    0.7373s

metadata_update:
  Mean:   0.4759s
  Median: 0.4759s
  Min:    0.4759s
  Max:    0.4759s

New Events per Run:
  Mean:   2.00
  Median: 2.00
  Min:    2
  Max:    2
  Total:  2

";

pub(super) const SPARSE_RECORDS: &str = "\
================================================================================
PERFORMANCE TREND ANALYSIS
================================================================================
Total runs analyzed: 5

Total Execution Time:
  Mean:   2.5000s
  Median: 2.5000s
  Min:    2.0000s
  Max:    3.0000s
  StdDev: 0.7071s

api_fetch:
  Mean:   1.5000s
  Median: 1.5000s
  Min:    1.5000s
  Max:    1.5000s

New Events per Run:
  Mean:   3.50
  Median: 3.50
  Min:    0
  Max:    7
  Total:  7

Errors: 1 errors across 5 runs
  Error rate: 20.00%

";

pub(super) const ODD_NUMBERS: &str = "\
================================================================================
PERFORMANCE TREND ANALYSIS
================================================================================
Total runs analyzed: 3

Total Execution Time:
  Mean:   41152263004115228891270873088.0000s
  Median: 0.1000s
  Min:    0.0001s
  Max:    123456789012345677877719597056.0000s
  StdDev: 71277810369564609072538320896.0000s

api_fetch:
  Mean:   infs
  Median: 1.0000s
  Min:    -0.0000s
  Max:    infs

New Events per Run:
  Mean:   12297829382473033728.00
  Median: 1.00
  Min:    True
  Max:    36893488147419103232
  Total:  3.6893488147419103e+19

";

pub(super) const BROKEN_FILES: &str = r"Error loading metrics/metrics_.json: Expecting ':' delimiter: line 1 column 6 (char 5)
Error loading metrics/metrics_01.json: Expecting value: line 1 column 1 (char 0)
Error loading metrics/metrics_02.json: Expecting ',' delimiter: line 1 column 19 (char 18)
Error loading metrics/metrics_03.json: Expecting value: line 2 column 6 (char 25)
Error loading metrics/metrics_04.json: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)
Error loading metrics/metrics_05.json: list indices must be integers or slices, not str
Error loading metrics/metrics_06.json: 'str' object does not support item assignment
Error loading metrics/metrics_07.json: 'int' object does not support item assignment
Error loading metrics/metrics_08.json: Unexpected UTF-8 BOM (decode using utf-8-sig): line 1 column 1 (char 0)
Error loading metrics/metrics_09.json: 'utf-8' codec can't decode byte 0xe5 in position 2: invalid continuation byte
Error loading metrics/metrics_10.json: Extra data: line 1 column 4 (char 3)
Error loading metrics/metrics_11.json: 'NoneType' object does not support item assignment
Error loading metrics/metrics_12.json: [Errno 21] Is a directory: 'metrics/metrics_12.json'
Error loading metrics/metrics_13.json: [Errno 2] No such file or directory: 'metrics/metrics_13.json'
Error loading metrics/metrics_15.json: Invalid \escape: line 1 column 8 (char 7)
Error loading metrics/metrics_16.json: Invalid control character at: line 1 column 8 (char 7)
Error loading metrics/metrics_17.json: Unterminated string starting at: line 1 column 7 (char 6)
Error loading metrics/metrics_18.json: Expecting ',' delimiter: line 1 column 4 (char 3)
Error loading metrics/metrics_19.json: maximum recursion depth exceeded while decoding a JSON array from a unicode string
Error loading metrics/metrics_20.json: Expecting property name enclosed in double quotes: line 1 column 9 (char 8)
Error loading metrics/metrics_21.json: Invalid \uXXXX escape: line 1 column 10 (char 9)
Error loading metrics/metrics_it's.json: 'utf-8' codec can't decode bytes in position 0-2: unexpected end of data
================================================================================
PERFORMANCE TREND ANALYSIS
================================================================================
Total runs analyzed: 1

Total Execution Time:
  Mean:   1.5000s
  Median: 1.5000s
  Min:    1.5000s
  Max:    1.5000s

";
