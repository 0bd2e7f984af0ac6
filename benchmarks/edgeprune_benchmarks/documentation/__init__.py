"""What README and docs show: tables, plots and the demo."""
