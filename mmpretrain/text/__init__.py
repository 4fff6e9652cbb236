"""What is said: words with their times, and the phones that they are made of."""
