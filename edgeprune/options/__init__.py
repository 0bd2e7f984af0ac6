"""What commands share: options made of settings, outputs, sizes, flags in messages."""
