"""How the model pocket is trained: scenes, their captions and pictures, the model's parts, and two trainings."""
