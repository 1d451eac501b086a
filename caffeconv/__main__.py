"""python -m caffeconv"""

from caffeconv.cli import main

main()
