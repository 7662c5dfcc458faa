"""What a report shows beside the answer; the answer depends on none of it."""
