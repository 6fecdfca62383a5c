"""What a steered model is asked: prompts that call for no emotion, half to choose doses on, half to report on.

They were written for this library. None names an emotion, a mood or anything that is good or bad news; each leaves room
for a voice. They alternate between the halves.
"""

PROMPTS = (
    "Tell me about your day.",
    "Describe the street outside your window.",
    "Write a short note to your neighbour.",
    "What happened at the office this morning?",
    "Tell me about the last meal you had.",
    "Describe a walk through the park.",
    "Write the first lines of a diary entry.",
    "What do you see when you look out of a train?",
    "Tell me about a phone call you had.",
    "Describe the room you are in.",
    "Write a message to an old classmate.",
    "What was the weekend like?",
    "Tell me about your way to work.",
    "Describe an evening at home.",
    "Write a few lines about the weather.",
    "What did you find in the old box?",
    "Tell me about the town where you live.",
    "Describe a visit to the market.",
    "Write a postcard from the coast.",
    "What are you thinking about right now?",
    "Tell me what the letter said.",
    "Describe the people in the waiting room.",
    "Write a short scene in a kitchen.",
    "What happened on the bus?",
    "Tell me about the film you saw.",
    "Describe the house at the end of the road.",
    "Write a few sentences about your team.",
    "What did the doctor say?",
    "Tell me about the meeting.",
    "Describe the garden in the morning.",
    "Write a reply to your landlord.",
    "What is it like to be you today?",
)
CHOOSE, REPORT = PROMPTS[0::2], PROMPTS[1::2]

MOODS = {
    "joy": "joyful",
    "trust": "trusting",
    "fear": "fearful",
    "surprise": "surprised",
    "sadness": "sad",
    "disgust": "disgusted",
    "anger": "angry",
    "anticipation": "full of anticipation",
}


def instruction(emotion: str) -> str:
    """How a model is asked, in words, for what steering is to do.

    >>> instruction("joy")
    'Reply in a joyful mood.'
    """
    return f"Reply in a {MOODS[emotion]} mood." if emotion != "anticipation" else f"Reply {MOODS[emotion]}."
