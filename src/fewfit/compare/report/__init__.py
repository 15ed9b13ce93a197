"""What a person reads of a comparison: tables, plots, one page of HTML; and its statistics."""
