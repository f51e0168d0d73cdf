"""``python -m imgmatch_df``: the command `imgmatch`."""

from imgmatch_df.cli import main

if __name__ == "__main__":
    main()
