//! What a session needs from storage, and the files that give it.
