"""`autoresearch watch`: what is asked for (gather), what is shown of it (picture, lines), and when
(screen). The two in the middle are pure."""
