"""What is minimised: net × criterion or batch loss × regulariser × batches."""
