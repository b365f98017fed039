"""Programs to try Robot Dispatch against."""
