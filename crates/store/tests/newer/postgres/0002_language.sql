ALTER TABLE posts ADD COLUMN language text;
