"""Where goals come from: generated ones, files, and MultiWOZ."""
