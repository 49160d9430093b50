package watermill
