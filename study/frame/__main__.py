"""`python -m study.frame results/<study> …` writes the frames anew from the trials' records."""

import sys

from study.frame.files import write_frames

for folder in sys.argv[1:]:
    write_frames(folder)
