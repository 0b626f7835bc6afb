"""`python -m nightreel`"""

from .main import main

main()
