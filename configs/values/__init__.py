"""Types that specs are built of: fractions, patterns, sources, languages."""
