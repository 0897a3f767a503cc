"""Wrong steps that a model made itself: collected from a controller, judged by the task."""
