//! The fair queues, told as stories.
