"""Nightreel for programs that publish jobs: no torch, no cloud libraries, until an address asks for them."""

from nightreel_queue.audio import Audio
from nightreel_queue.base import Message, Queue
from nightreel_queue.connect import open_queue as connect
from nightreel_queue.errors import InvalidJob, Problem, QueueError
from nightreel_queue.job import Job, Output, Render, Shot
from nightreel_queue.manifest import Manifest, load_manifest
from nightreel_queue.motions import Feedback, FeedbackMotion, Move, Walk, WalkMotion
from nightreel_queue.pictures import Control, Init
from nightreel_queue.transitions import Transition

__all__ = [
    "Audio",
    "Control",
    "Feedback",
    "FeedbackMotion",
    "Init",
    "InvalidJob",
    "Job",
    "Manifest",
    "Message",
    "Move",
    "Output",
    "Problem",
    "Queue",
    "QueueError",
    "Render",
    "Shot",
    "Transition",
    "Walk",
    "WalkMotion",
    "connect",
    "load_manifest",
]
