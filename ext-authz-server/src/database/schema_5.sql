-- For which decision something was used: the filter asks a second time where the first answer was lost.
ALTER TABLE used ADD COLUMN holder TEXT;
