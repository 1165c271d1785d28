"""Chats as examples: messages checked, rendered by the model's own template, and the assistant's turns located in the
text.
"""
